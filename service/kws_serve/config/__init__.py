"""Settings of kws-serve and kws-detect: the class, its flags, and the layers that a value comes from."""

from kws_serve.config.checks import check_url, parse_threshold
from kws_serve.config.flags import add_flags, fields_of, flag_name, variable_name
from kws_serve.config.layers import load_settings
from kws_serve.config.settings import DETECT, SERVE, Settings, SettingsError

__all__ = [
    "DETECT",
    "SERVE",
    "Settings",
    "SettingsError",
    "add_flags",
    "check_url",
    "fields_of",
    "flag_name",
    "load_settings",
    "parse_threshold",
    "variable_name",
]
