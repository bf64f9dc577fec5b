"""Placeholder replaced below."""
from setuptools import find_packages, setup

setup(name="mllm", version="0.1.0", packages=find_packages(include=["mllm", "mllm.*"]))
