"""What the official OFREP provider for Python makes of the questions on standard input, as JSON lines on standard output.

provider.py BASE_URL; each line is {"token", "type", "flag", "default", "key", "attributes"}.
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def client(base_url: str, token: str):
    provider = OFREPProvider(base_url, headers_factory=lambda: {"Authorization": f"Bearer {token}"})
    api.set_provider(provider, token)
    return api.get_client(token)


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        ask = getattr(client(sys.argv[1], question["token"]), f"get_{question['type']}_details")
        context = EvaluationContext(question["key"], question["attributes"])
        details = ask(question["flag"], question["default"], context)
        answer = {
            "value": details.value,
            "kind": type(details.value).__name__,
            "variant": details.variant,
            "reason": details.reason,
            "error": details.error_code,
            "source": details.flag_metadata.get("source"),
        }
        print(json.dumps(answer), flush=True)


main()
