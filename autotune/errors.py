"""What can go wrong, by cause. Each message is one sentence that says what to do."""

from __future__ import annotations


class AutotuneError(Exception):
    """Root of every error that is ours to explain."""


class UserError(AutotuneError):
    """The user's input is at fault; the command line prints the sentence and exits with 2."""


class ModelError(UserError):
    """The model cannot be read, is not supported, or its import is not right."""


class InputError(UserError):
    """An input's name, shape, dtype or file does not fit the model."""


class TargetError(UserError):
    """The target is unknown, or cannot be measured on this machine."""


class DeviceError(UserError):
    """A device that is measured over the network, or its tracker, cannot be reached."""


class DatabaseError(UserError):
    """The tuning database cannot be used."""


class ArtifactError(UserError):
    """An artifact cannot be written, read or trusted."""


class MissingDependency(UserError):
    """An optional package is needed; the sentence names the extra that brings it."""
