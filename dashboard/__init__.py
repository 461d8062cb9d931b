"""The dashboard: a Streamlit app that reads the journal and never writes, asks or spends.

``serve`` starts it. ``app`` sets up the pages, ``sidebar`` makes the selection, ``data`` reads the journal, ``views`` computes,
``figures`` draws, ``words`` puts numbers into words and ``screens`` holds one file a page.
"""
