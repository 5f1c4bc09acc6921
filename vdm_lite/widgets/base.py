"""What all widgets share: fields that become controls, one source for notebook and web page.

A widget is one ES module ``js/NAME.js`` with ``render({model, el})`` and one small class here. In a
notebook it is an anywidget: its fields are traits, linked both ways. On the book's pages
``js/loader.js`` calls the same ``render`` with the state that stands in the widget's HTML form, so
that the page needs neither a kernel nor a widget manager.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import anywidget
import traitlets

FOLDER = Path(__file__).parent / "js"
IMPORT = re.compile(r'^import (\{[^}]*\}) from "(\./[\w/]+\.js)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:(?:async )?function|const|class) (\w+))", re.MULTILINE)


class _Number(traitlets.Float):
    """A float within bounds; NaN, which compares with nothing, is refused too."""

    def validate(self, obj: Any, value: Any) -> float:
        value = super().validate(obj, value)
        if math.isnan(value):
            raise traitlets.TraitError(f"{self.name}: expected a number, got NaN")
        return value


class _Constant(traitlets.Any):
    """A value that each widget makes for itself, for its module to read."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make
        self.tag(sync=True, constant=True)

    def default(self, obj: Any = None) -> Any:
        return None if obj is None else self.make()


def number(
    default: float,
    low: float,
    high: float,
    *,
    label: str,
    step: float = 0.01,
    unit: str = "",
    log: bool = False,
) -> traitlets.Float:
    """A number in [low, high] with a slider in steps of ``step``, or on a log scale."""
    control = {"kind": "number", "label": label, "low": low, "high": high}
    control |= {"step": step, "unit": unit, "log": log}
    return _Number(default, min=low, max=high).tag(sync=True, control=control)


def whole(
    default: int, low: int, high: int, *, label: str, unit: str = "", log: bool = False
) -> traitlets.Int:
    """A whole number in [low, high] with a slider."""
    control = {"kind": "whole", "label": label, "low": low, "high": high}
    control |= {"step": 1, "unit": unit, "log": log}
    return traitlets.Int(default, min=low, max=high).tag(sync=True, control=control)


def choice(default: str, options: Sequence[str], *, label: str) -> traitlets.Enum:
    """One of several words."""
    control = {"kind": "choice", "label": label, "options": list(options)}
    return traitlets.Enum(list(options), default).tag(sync=True, control=control)


def switch(default: bool, *, label: str) -> traitlets.Bool:
    """On or off."""
    return traitlets.Bool(default).tag(sync=True, control={"kind": "switch", "label": label})


def curve(default: Sequence[float], low: float, high: float, *, label: str) -> traitlets.List:
    """As many numbers in [low, high] as the default has; the module draws handles for them."""
    control = {"kind": "curve", "label": label, "low": low, "high": high}
    points = traitlets.List(
        _Number(min=low, max=high), list(default), minlen=len(default), maxlen=len(default)
    )
    return points.tag(sync=True, control=control)


def fixed(make: Callable[[], Any]) -> traitlets.Any:
    """What ``make()`` returns, as JSON for the module: computed by the library, not a control."""
    return _Constant(make)


class Widget(anywidget.AnyWidget):
    """Base of the widgets. Subclasses name their ``module`` and ``title`` and list their fields.

    Values outside a field's range, NaN among them, raise ``traitlets.TraitError``.
    """

    module: ClassVar[str]
    title: ClassVar[str]

    _fields = traitlets.List().tag(sync=True)
    _constants = traitlets.List().tag(sync=True)
    _title = traitlets.Unicode().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "module" in vars(cls):  # traitlets makes further subclasses, which inherit both
            cls._esm = bundle(cls.module)
            cls._css = (FOLDER / "widget.css").read_text(encoding="utf-8")
        super().__init_subclass__(**kwargs)

    def __init__(self, **values: Any) -> None:
        unknown = sorted(set(values) - set(self._controls()))
        if unknown:
            raise TypeError(f"{type(self).__name__}: no fields {unknown}; {list(self._controls())}")
        super().__init__(**values)
        self._title = self.title
        self._constants = list(self.traits(constant=True))
        self._fields = [
            {"name": name, "initial": getattr(self, name), **control}
            for name, control in self._controls().items()
        ]

    @classmethod
    def _controls(cls) -> dict[str, dict[str, Any]]:
        """The controls by name, in the order in which the class lists its fields."""
        listed = {n: t for c in reversed(cls.__mro__) for n, t in vars(c).items()}
        traits = {n: t for n, t in listed.items() if isinstance(t, traitlets.TraitType)}
        return {n: t.metadata["control"] for n, t in traits.items() if "control" in t.metadata}

    def html(self) -> str:
        """The form that ``loader.js`` brings to life on a web page: the state as JSON."""
        names = ["_title", "_fields", "_constants", *self._controls(), *self._constants]
        state = json.dumps({name: getattr(self, name) for name in names}, allow_nan=False)
        # Within a script element only "<" could end the data early.
        return (
            f'<div class="vdm-host" data-widget="{self.module}">'
            f'<script type="application/json">{state.replace("<", chr(92) + "u003c")}</script>'
            f"<p>“{escape(self.title)}” is a live widget: it runs in a notebook and in the book's "
            "pages.<noscript> Here it needs JavaScript.</noscript></p></div>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | form_beside_widget(self.html()), metadata


def form_beside_widget(html: str) -> dict[str, str]:
    """The part of a mime bundle that pages without a kernel show; in Colab it hides the widget."""
    return {} if "google.colab" in sys.modules else {"text/html": html}


@cache
def bundle(module: str) -> str:
    """One ES module out of ``module`` and the modules that it imports, as anywidget wants it.

    Each stands in a function of its own, which returns what it exports, after those that it needs.
    """
    scopes: dict[str, str] = {}
    _enclose(f"{module}.js", scopes)
    export = f'export default {{ render: $modules["{module}.js"].render }};\n'
    return "\n".join(["const $modules = {};", *scopes.values(), export])


def _enclose(name: str, scopes: dict[str, str]) -> None:
    """Add the functions of the modules that this one imports, then its own."""

    def linked(match: re.Match[str]) -> str:
        needed = (PurePosixPath(name).parent / match[2]).as_posix()
        if needed not in scopes:
            _enclose(needed, scopes)
        names = match[1].replace(" as ", ": ")
        return f'const {names} = $modules["{needed}"];'

    source = IMPORT.sub(linked, (FOLDER / name).read_text(encoding="utf-8"))
    exports = ", ".join(exported for _, exported in EXPORT.findall(source))
    body = EXPORT.sub(r"\1", source)
    scopes[name] = f'$modules["{name}"] = (() => {{\n{body}return {{ {exports} }};\n}})();\n'
