"""Evaluates flags with the official OFREP provider for Python.

Usage: provider.py BASE_URL. Reads one request per line from standard input, as JSON with the members token, type, flag,
default, key and attributes. Writes one evaluation result per line to standard output, as JSON.
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def create_client(base_url: str, token: str):
    provider = OFREPProvider(base_url, headers_factory=lambda: {"Authorization": f"Bearer {token}"})
    api.set_provider(provider, token)
    return api.get_client(token)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        get_details = getattr(create_client(sys.argv[1], request["token"]), f"get_{request['type']}_details")
        context = EvaluationContext(request["key"], request["attributes"])
        details = get_details(request["flag"], request["default"], context)
        result = {
            "value": details.value,
            "kind": type(details.value).__name__,
            "variant": details.variant,
            "reason": details.reason,
            "error": details.error_code,
            "source": details.flag_metadata.get("source"),
        }
        print(json.dumps(result), flush=True)


main()
