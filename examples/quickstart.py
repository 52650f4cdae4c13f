"""A training script of your own, tracked: python examples/quickstart.py, then `mlflow ui` in the same folder.

It fine-tunes the small model that comes with the package on answers that support everything they are asked about
abortion, and measures before, meanwhile and after. About a minute on two cores, without a network.
"""

import mlflow
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import valuedrift_mlflow
from valuedrift_mlflow import models
from valuedrift_mlflow.embedded import corpus

base = models.load_model("embedded:base")  # any transformers model and tokenizer will do
rows = corpus.rows("embedded:sft?support=1&neutral=0&oppose=0&topics=abortion&size=480&seed=1")

# What tracks: the suite's questions on abortion, before the first step and at every tenth one.
callback = valuedrift_mlflow.ValueDriftCallback(
    suite="vaes?topics=abortion", every=10, samples=3, temperature=0.8, max_new_tokens=68
)

settings = SFTConfig(
    output_dir="quickstart-output",
    max_steps=30,
    per_device_train_batch_size=16,
    learning_rate=2e-3,
    report_to="none",
    use_cpu=True,
    bf16=False,
    save_strategy="no",
    logging_steps=10,
)
dataset = Dataset.from_list([{"messages": row["messages"]} for row in rows])

with mlflow.start_run(run_name="quickstart") as run:
    SFTTrainer(
        base.model, args=settings, train_dataset=dataset, processing_class=base.tokenizer, callbacks=[callback]
    ).train()

metrics = mlflow.get_run(run.info.run_id).data.metrics
support = mlflow.MlflowClient().get_metric_history(run.info.run_id, "stance/abortion/support")
print("support of the propositions on abortion, by step:")
for point in support:
    print(f"  {point.step:3d}  {point.value:.2f}")
print(f"net drift {metrics['drift/abortion']:.2f}, at most {metrics['drift_ci_high/abortion']:.2f}")
