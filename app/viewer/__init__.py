"""What browsers get: files as they are, no build. Plain data, no side: nothing here is run by the server.

The law: everything that a page needs is in this folder, so pages work without the net. `vendor/` holds other people's
work, a folder each, unchanged, with its licence and notice beside it; a page that shows a chart of TradingView's names
them as its maker, which the notice asks for (the page at `/` has a line for it; the library's own logo would tell them
the address of the server). A module a concern, named in index.html for preloading; main.js joins them. All of it stays
below 1 MB.

vendor/lightweight-charts: 5.2.1, the standalone production build of npm's package, sha256
e21cc5caa0226ef30bd8549c50b9ef926615f2a4ee6b4e486353477a55f598cf.
"""
