"""Parrot: the chat-completions dialect at an address and a key of its own."""

from toolkit.providers.chat_completions import ChatCompletions


class Parrot(ChatCompletions):
    name = "parrot"
    base_url = "https://parrot.example/v1"
    key_var = "PARROT_API_KEY"
    url_vars = ("PARROT_BASE_URL",)
    key_required = True
