"""The tables of the reference pages, made from the models and settings that they describe."""

from __future__ import annotations

from pydantic import BaseModel

from citadel_consul.config import options, stackmodels
from citadel_consul.config.durations import format_duration

MODELS: dict[str, type[BaseModel]] = {
    "File": stackmodels.StackModel,
    "Service": stackmodels.ServiceModel,
    "Backend process": stackmodels.ProcessModel,
    "Backend systemd": stackmodels.SystemdModel,
    "Backend docker": stackmodels.DockerModel,
    "Backend command": stackmodels.CommandModel,
    "Logs": stackmodels.LogsModel,
    "Check": stackmodels.CheckModel,
    "Edge": stackmodels.EdgeModel,
    "Recovery": stackmodels.RecoveryModel,
}


def model_table(model: type[BaseModel]) -> str:
    """A row for each field: name, default, meaning."""
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = "" if field.is_required() or field.default is None or field.default_factory else field.default
        rows.append(f"| `{name}` | {_default(default)} | {field.description} |")
    return "\n".join(rows)


def settings_table() -> str:
    """A row for each setting: name, variable, default, meaning."""
    rows = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in (options.CONFIG, *options.ALL):
        default = setting.default_text or _default(setting.default if setting.default is not None else "")
        variable = f"`{setting.variable}`" if setting.variable else ""
        rows.append(f"| `{setting.name}` | {variable} | {default} | {setting.meaning} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    if value == 10 * 1024 * 1024:
        return "`10MiB`"
    if isinstance(value, float):
        return f"`{format_duration(value)}`"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""
