"""What the pages show: calls in, numbers and tables out. Nothing here knows Streamlit.

Latency is that of live calls that succeeded: a replayed answer says nothing about a model, and a failure has no answer to time.
"""

from dashboard.views.cache import *  # noqa: F403
from dashboard.views.cost import *  # noqa: F403
from dashboard.views.errors import *  # noqa: F403
from dashboard.views.events import *  # noqa: F403
from dashboard.views.health import *  # noqa: F403
from dashboard.views.latency import *  # noqa: F403
from dashboard.views.overview import *  # noqa: F403
from dashboard.views.runs import *  # noqa: F403
from dashboard.views.slices import *  # noqa: F403
