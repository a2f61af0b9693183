import json
import os
import sys

from litellm import batch_completion

source, target = sys.argv[1:]
with open(source) as lines:
    requests = [json.loads(line) for line in lines]
answers = batch_completion(
    model="openai/m",
    messages=[[{"role": "user", "content": request["prompt"]}] for request in requests],
    max_tokens=requests[0]["max_tokens"],
    max_workers=4,
    api_base=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
)
with open(target, "w") as out:
    for request, answer in zip(requests, answers, strict=True):
        text = answer.choices[0].message.content
        out.write(json.dumps({"key": request["key"], "content": text}) + "\n")
