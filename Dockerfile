# tickhub's image: the server and every command of `python -m app`, PostgreSQL's programs included (they come with the
# embedded server: pg_basebackup, pg_receivewal, pg_dump, psql). Build: docker build -t tickhub .
# docs/deployment.md says how it is run; compose.yml beside it in deploy/ runs it with all that belongs to it.
FROM python:3.11.15-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TICKHUB_HOST=0.0.0.0 \
    TICKHUB_DATA_DIR=/data

# A number, so that Kubernetes' runAsNonRoot can see it; volumes made of these directories belong to it.
RUN groupadd --gid 10001 tickhub \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tickhub \
    && install -d -o tickhub -g tickhub -m 0700 /data /backups

WORKDIR /opt/tickhub

# Before the code: a change of that installs nothing anew. Wheels only: there is no compiler here.
COPY requirements.txt ./
RUN pip install --no-cache-dir --only-binary :all: -r requirements.txt

COPY gunicorn.conf.py pyproject.toml wsgi.py ./
COPY sql sql
COPY app app
COPY deploy/healthcheck.py deploy/daily.sh deploy/
RUN python -m compileall -q app sql wsgi.py gunicorn.conf.py deploy

USER 10001:10001
VOLUME ["/data", "/backups"]
EXPOSE 5000

# As with Ctrl-C: what was accepted is flushed. Give it time: docker stop --time 45.
STOPSIGNAL SIGTERM

# Whether ticks are taken, which the database is not needed for: one that is away must not have the server restarted.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "deploy/healthcheck.py"]

ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
