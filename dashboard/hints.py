"""What to do about an error, by its type."""

from __future__ import annotations

__all__ = ["hint"]

_HINTS = {
    "UnreachableError": "the service did not answer at all. Is it running, and is its address right? `toolkit doctor` asks every provider.",
    "ProviderTimeoutError": "the time limit passed. Raise `timeout_s`, ask for fewer tokens, or ask fewer calls at a time.",
    "RateLimitError": "the service asks for a slower pace. Lower `concurrency`; waits asked for by the service are kept already.",
    "ServerError": "the service failed on its side. Retries are made already; if it goes on, look at the service's status page.",
    "AuthError": "the key is missing, wrong, or may not do this. `toolkit doctor` names the variable each provider reads.",
    "RequestError": "the service refuses the request as it stands. The message says which part; retrying can't help.",
    "NotFoundError": "the service does not know the model. `toolkit models PROVIDER` lists the ones it has.",
    "ContentFilterError": "the service refused the prompt or the answer for its content. Reword it; retrying can't help.",
    "ReplyError": "the answer could not be read or was empty. The message shows what came; a proxy in between is a common cause.",
    "StreamInterrupted": "the connection broke in the middle of an answer. The part that arrived is in the error's `partial`.",
    "ConfigError": "a setting or an argument is wrong; the message says what to change.",
    "CacheMiss": '`cache="only"` was asked for and no answer is kept. Ask once with the cache on.',
    "BudgetExceeded": "the comparison's budget was spent. Raise `budget_usd` and run again: finished answers are replayed.",
}
_UNKNOWN = "this type is not the toolkit's own; the stack says where it was raised."


def hint(error_type: str | None) -> str:
    """Return what to do next, as Markdown that starts in lower case."""
    return _HINTS.get(error_type or "", _UNKNOWN)
