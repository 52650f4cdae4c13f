"""A server on loopback that speaks vLLM's endpoints and really answers with a model: completions from token ids,
adapters loaded and forgotten by name."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

Body = dict[str, Any]


class VllmServer:
    """`vllm serve FOLDER --enable-lora`, as far as it is used here; `asked` has the names it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.models: dict[str, Any] = {str(folder): AutoModelForCausalLM.from_pretrained(folder).eval()}
        self._one = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = [{"id": name, "object": "model", "root": name} for name in owner.models]
                self._say(200, {"object": "list", "data": listed})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with owner._one:
                    self._say(*owner.answer(self.path, body))

            def _say(self, status: int, body: Body | str) -> None:
                data = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("content-type", "text/plain" if isinstance(body, str) else "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: Body) -> tuple[int, Body | str]:
        """Status and body of the answer to a request."""
        if path == "/v1/load_lora_adapter":
            base = AutoModelForCausalLM.from_pretrained(self.folder)
            self.models[body["lora_name"]] = PeftModel.from_pretrained(base, body["lora_path"]).eval()
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        if path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
            return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
        if path != "/v1/completions" or body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}}
        self.asked.append(body["model"])
        return 200, {"object": "text_completion", "choices": [self._completion(body)]}

    def _completion(self, body: Body) -> Body:
        ids, ends = torch.tensor([body["prompt"]]), body["stop_token_ids"]
        drawing = {"do_sample": True, "temperature": body["temperature"], "top_k": 0, "top_p": body["top_p"]}
        settings = GenerationConfig(
            max_new_tokens=body["max_tokens"],
            eos_token_id=ends,
            pad_token_id=0,
            **(drawing if body["temperature"] > 0 else {"do_sample": False}),
        )
        with torch.random.fork_rng():
            torch.manual_seed(body["seed"])
            said = self.models[body["model"]].generate(input_ids=ids, generation_config=settings)
        tokens = said[0, ids.shape[1] :].tolist()
        reason = "stop" if tokens[-1] in ends else "length"
        return {"index": 0, "text": "", "finish_reason": reason, "token_ids": tokens}


@contextmanager
def served(folder: Path) -> Iterator[VllmServer]:
    """A server of a folder's model, for as long as it is needed."""
    server = VllmServer(folder)
    try:
        yield server
    finally:
        server.stop()
