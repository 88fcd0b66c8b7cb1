"""The admin API: health, metrics, statistics and orders, on a listener of its own.

`app` puts it together; `guard` decides who may speak to it; `endpoints` answers; `models` says
in which form; `docs_page` shows all of it without fetching anything from elsewhere.
"""
