"""Where things lie, what the settings say, and the one log. `settings.py` and `home.py` hold the same for the package; a test compares.

Standard library only, Python 3.9. Nothing here raises for what a disk or a person's file can be like.
"""

import os
import sys
import time

import quickjson

MOST_LOG = 256 * 1024
DEFAULT_PORTS = {"otlp_http": 4318, "clickhouse": 8123}


def home(environ=None, platform=sys.platform):
    """The directory that holds everything of an installation, as `sp_telemetry.settings.default_home` has it."""
    environ = os.environ if environ is None else environ
    if environ.get("SP_TELEMETRY_HOME"):
        return os.path.abspath(os.path.expanduser(environ["SP_TELEMETRY_HOME"]))
    user = environ.get("HOME") or environ.get("USERPROFILE") or os.path.expanduser("~")
    if platform == "win32":
        return os.path.join(environ.get("LOCALAPPDATA") or os.path.join(user, "AppData", "Local"), "sp-telemetry")
    if platform == "darwin":
        return os.path.join(user, "Library", "Application Support", "sp-telemetry")
    return os.path.join(environ.get("XDG_DATA_HOME") or os.path.join(user, ".local", "share"), "sp-telemetry")


def read(path, most=1 << 20):
    """The text of a small file, '' where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def read_json(path):
    """The dict in a JSON file, {} where there is none."""
    try:
        value = quickjson.loads(read(path))
        return value if isinstance(value, dict) else {}
    except (ValueError, RecursionError):
        return {}


def replace(path, text):
    """Replaces a file as a whole, private to its owner. Raises OSError."""
    draft = f"{path}.{os.getpid()}"
    try:
        write(draft, os.O_TRUNC, text.encode("utf-8", "surrogateescape"))
        os.replace(draft, path)
    except OSError:
        remove(draft)
        raise


def folder(home, name):
    """A folder of the home directory, made if need be and private to its owner, as the home directory is. Raises OSError."""
    path = os.path.join(home, name)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(home, 0o700, exist_ok=True)
        os.makedirs(path, 0o700, exist_ok=True)
    return path


def write(path, flags, data):
    """Writes all of `data` into a file of its owner, or raises OSError: a full disk takes a part."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    try:
        if os.write(file, data) != len(data):
            raise OSError("short write")
    finally:
        os.close(file)


def remove(path):
    """1 if this call removed the file, 0 if it was not there or can't be removed."""
    try:
        os.unlink(path)
        return 1
    except OSError:
        return 0


class Settings:
    """The few settings that hooks need, from the environment, then `config.toml`. `made` says whether set-up was done here."""

    def __init__(self, home, environ=None):
        self._environ = os.environ if environ is None else environ
        self._home = home
        text = read(os.path.join(home, "config.toml"))
        self.made = bool(text) or os.path.isfile(os.path.join(home, "config.toml"))
        self._values = top_level(text)

    def text(self, name):
        value = self._environ.get("SP_TELEMETRY_" + name.upper()) or self._values.get(name, "")
        return value if isinstance(value, str) else ""

    def on(self, name):
        """A switch that is on unless somebody switched it off."""
        value = self._environ.get("SP_TELEMETRY_" + name.upper()) or self._values.get(name, True)
        return str(value).lower() not in ("0", "false", "no", "off")

    def chosen(self, name):
        """A switch that is off unless somebody switched it on."""
        value = self._environ.get("SP_TELEMETRY_" + name.upper()) or self._values.get(name, False)
        return str(value).lower() in ("1", "true", "yes", "on")

    def port(self, name):
        """Where the server listens: what the running one wrote, else the setting, else the usual port."""
        ports = read_json(os.path.join(self._home, "server.json")).get("ports")
        tries = [ports.get(name) if isinstance(ports, dict) else None]
        tries += [self._environ.get("SP_TELEMETRY_" + name.upper() + "_PORT"), self._values.get(name + "_port")]
        for value in tries:
            if 0 < whole(value) < 65536:
                return whole(value)
        return DEFAULT_PORTS[name]


def whole(text):
    """The number that stands there; -1 for none. Python makes none of `²`, a digit, nor of thousands of them."""
    text = str(text)
    return int(text) if text.isdecimal() and len(text) < 20 else -1


def top_level(text):
    """Strings, whole numbers and booleans at the top of a TOML file. `tomllib` is not in 3.9 and costs two starts of Python."""
    values = {}
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("["):
            break
        key, equals, value = line.partition("=")
        key, value = key.strip().strip("\"'"), value.strip()
        if not equals or not key or key.startswith("#") or not value:
            continue
        if value[0] == "'":
            values[key] = value[1:].partition("'")[0]
        elif value[0] == '"':
            try:
                values[key] = quickjson.loads(value)  # a basic string of TOML is nearly one of JSON, and the scanner stops at its end
            except ValueError:
                continue
        else:
            value = value.partition("#")[0].strip().replace("_", "")
            if value in ("true", "false"):
                values[key] = value == "true"
            elif whole(value) >= 0:
                values[key] = whole(value)
    return values


def log(home, what, reason):
    """One line in the log that `doctor` shows. Reasons name no path, prompt or file of the person's."""
    try:
        path = os.path.join(folder(home, "logs"), "hooks.log")
        try:
            if os.path.getsize(path) > MOST_LOG:
                os.replace(path, path + ".1")
        except FileNotFoundError:
            pass
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write(path, os.O_APPEND, f"{stamp} {what} {reason[:500]}\n".encode("utf-8", "replace"))
    except (OSError, ValueError):
        pass  # a full disk or a home that can't be written: nowhere left to say it


def described(error):
    """An exception as kind, number and place: its text may hold a path or a prompt."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    number = getattr(error, "errno", None)
    return "{}{} at {}".format(type(error).__name__, "" if number is None else f" {number}", place)
