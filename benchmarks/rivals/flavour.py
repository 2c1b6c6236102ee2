"""MLflow's model server: a pyfunc model that takes base64 in a column, as its documentation has it for images."""

import base64
import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class Pets(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        sys.path.insert(0, os.environ["RIVALS"])

    def predict(self, context: Any, model_input: pd.DataFrame) -> list[dict[str, object]]:
        from network import answer, decode

        return [answer(decode(base64.b64decode(photo))) for photo in model_input["photo"]]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(Path(sys.argv[1]), python_model=Pets(), pip_requirements=[])
