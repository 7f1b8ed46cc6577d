"""HTTP: one blueprint a file. Flask lives here and in `create_app`, nowhere else."""
