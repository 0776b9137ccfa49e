"""Where the time of a model goes: kernel by kernel, beside what this machine can do at best."""

from autotune.profile.profile import KernelProfile, Profile, profile

__all__ = ["KernelProfile", "Profile", "profile"]
