"""What reading the source alone does not tell the reference: what some functions are made of, and what they return."""

from __future__ import annotations

import re

import griffe

SHARED = re.compile(r"^(\w+(?:, \w+)+)((?: : .*)?\n(?: +.*(?:\n|$)|\n(?= ))+)", re.MULTILINE)
"""In a docstring: several names, and what is said of all of them."""


class MadeFunctions(griffe.Extension):
    """Shows functions that are made at import as what they are for their users, and each parameter with its own type."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SHARED.sub(one_by_one, obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        home, client = pkg["defaults"], pkg["client.Client"]
        for name in [member.name for member in home.members.values() if made_by(member, "on_default_client")]:
            home.set_member(name, without_self(client[name]))
        for member in pkg["monitor.frames"].functions.values():
            if made_by(member, "FrameFunction"):
                member.returns = "pd.DataFrame"


def without_self(method: griffe.Function) -> griffe.Function:
    """A function of a method's signature and words."""
    _, *parameters = method.parameters
    made = griffe.Function(method.name, parameters=griffe.Parameters(*parameters), returns=method.returns)
    made.docstring = griffe.Docstring(method.docstring.value, lineno=method.docstring.lineno, parent=made)
    return made


def one_by_one(shared: re.Match[str]) -> str:
    return "".join(name + shared[2] for name in shared[1].split(", "))


def made_by(member: griffe.Object | griffe.Alias, maker: str) -> bool:
    """Whether an attribute is what a maker returned, or a function is decorated with it."""
    if isinstance(member, griffe.Attribute):
        return str(member.value).startswith(f"{maker}(")
    return isinstance(member, griffe.Function) and any(str(each.value) == maker for each in member.decorators)
