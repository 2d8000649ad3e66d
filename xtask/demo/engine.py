"""The real llama.cpp HTTP server inside a Python process, for machines that have no llama-server of their own.

In: a GGUF file and an address; out: the same HTTP API. It runs until SIGTERM or SIGINT.
"""

import argparse
import signal
import sys

import xllamacpp


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True, help="GGUF file")
    arguments.add_argument("--alias", required=True, help="the model's name in the API")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--slots", type=int, default=4, help="requests that are served at a time")
    arguments.add_argument("--context", type=int, default=2048, help="tokens of context for each of them")
    options = arguments.parse_args()

    # Signals are waited for below; blocked first, so that the server's own threads inherit that.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.cpuparams.n_threads = options.threads
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.context * options.slots
    parameters.endpoint_metrics = True
    server = xllamacpp.Server(parameters)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
