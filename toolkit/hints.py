"""What to do about an error, by its type: one sentence, for tables and the dashboard."""

from __future__ import annotations

__all__ = ["next_step"]

NEXT_STEPS = {
    "AuthError": "check the provider's key: `toolkit doctor` says which variable it reads",
    "BudgetExceeded": "raise the budget, or ask fewer or cheaper models",
    "CacheMiss": 'nothing is kept for this prompt: ask once with cache=True, then "only" will find it',
    "CacheError": "look at the cache with `toolkit cache stats`; it can be cleared, and is then filled anew",
    "CancelledError": "the call was cancelled: run it again",
    "ConfigError": "change what the message names, and run it again",
    "ContentFilterError": "the service refused the content: rephrase the prompt, or leave it out for this model",
    "JournalError": "check that TOOLKIT_JOURNAL names a file you can write to; `tk.setup()` shows which one is used",
    "KeyboardInterrupt": "the call was interrupted: run it again",
    "NotFoundError": "check the model's name against `toolkit models PROVIDER`; a local model may have to be pulled",
    "ProviderTimeoutError": "give it more time with timeout_s=, or ask fewer at a time with concurrency=",
    "RateLimitError": "ask fewer at a time with concurrency=, or raise the limit with the provider",
    "ReaderLeft": "the stream was closed by its reader before its end",
    "ReplyError": "the answer could not be read: check that the base URL points at the right kind of server",
    "RequestError": "the service refused the request: the message says which field",
    "ServerError": "the service failed: try again later, or look at its status page",
    "StreamInterrupted": "the connection broke off: run it again; what had arrived is in the row",
    "UnreachableError": "is the server running, and is its address right? `toolkit doctor` tells",
}


def next_step(error_type: str) -> str:
    """Return the next step for a type of error, or a general one.

    Examples
    --------
    >>> next_step("RateLimitError")
    'ask fewer at a time with concurrency=, or raise the limit with the provider'
    """
    return NEXT_STEPS.get(error_type, "read the message and the stack")
