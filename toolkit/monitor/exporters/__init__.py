"""Exporters: what happened, on its way to the tools that a team already runs. Off unless switched on; see ``export_to``."""

from .base import CallExport, Exporter
from .switch import EXPORTERS, export_to, flush_exports

__all__ = ["EXPORTERS", "CallExport", "Exporter", "export_to", "flush_exports"]
