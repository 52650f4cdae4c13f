"""A reward of your own for ppo, grpo and rloo: a function from prompts and responses to one number for each.

In the folder of this file:

    valuedrift rloo --model embedded:base --reward own_reward:brief --set "rloo.max_steps=20"
"""


def brief(prompts: list[str], responses: list[str]) -> list[float]:
    """Responses of ten words are best; higher is better."""
    return [-abs(len(response.split()) - 10) / 10 for response in responses]
