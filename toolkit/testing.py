"""For tests and lessons: models that answer from a script, with real delays and real failures.

>>> import toolkit as tk
>>> from toolkit.testing import Answer, Failure, script
>>> script("moody", [Failure(status=503), Answer("At your service.")])
'scripted/moody'
>>> tk.generate_text("scripted/moody", "Hello?", cache=False).text
'At your service.'
"""

from __future__ import annotations

from .providers.scripted import Answer, Failure, script

__all__ = ["Answer", "Failure", "script"]
