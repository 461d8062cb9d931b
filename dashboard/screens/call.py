"""One call, at an address of its own: ``/call?call=<id>``."""

from __future__ import annotations

import streamlit as st

from dashboard.detail import show_call
from dashboard.page import empty, header, panel

header("Call")
with panel():
    call_id = st.query_params.get("call")
    if call_id:
        show_call(call_id)
    else:
        empty("The address names no call. Choose one from a table on the latency or the errors page.")
