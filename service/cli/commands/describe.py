"""`misfit describe`: what a model knows, and what it can do."""

from __future__ import annotations

from typing import Any

import click

from service.cli import request
from service.cli.endings import explain_errors


@click.command()
@click.argument("bundle_argument", required=False, metavar="[NAME|PATH]")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as the service sends it.")
@request.computing_options
@explain_errors
def describe(bundle_argument: str | None, as_json: bool, **values: Any) -> None:
    """Describe a bundle, by name or path, or the one that a service serves (--url, --grpc)."""
    if bundle_argument is not None:
        values["bundle"] = values["bundle"] or bundle_argument
    with request.take_computing(values).open() as client:
        answer = client.describe()
    if as_json:
        click.echo(answer.model_dump_json(exclude_unset=True))
        return
    image, capabilities = answer.image, answer.capabilities
    can = [
        *(["draws pictures"] if capabilities.can_decode else []),
        *(["draws heat maps"] if capabilities.has_saliency else []),
    ]
    lines = {
        "model": answer.model,
        "bundle": answer.bundle_id,
        "knows": answer.trained_on,
        "images": f"{image.height} x {image.width}, {'colour' if image.channels == 3 else 'grey'}",
        "latents": ", ".join(latent.name for latent in answer.latents if not latent.dead),
        "unused": ", ".join(latent.name for latent in answer.latents if latent.dead),
        "estimator": f"{answer.default_estimator} (of {', '.join(answer.estimators)})",
        "can": ", ".join(can) or "score only",
        "runs on": answer.provider,
        "drawing": answer.drawing,
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10}{text}")
    for remark in answer.remarks:
        click.echo(f"remark    {remark}")
