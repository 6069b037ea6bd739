"""The whole way from pixels to classes as one graph, for torch.export and for ONNX.

Shape letters: N batch, K classes, H and W pixels.
"""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import place
from deeplabv3.model.folding import folded
from deeplabv3.model.sealed import RECORD_FILE, sealed_zip

OPSET = 18
"""Of ONNX: what every runtime of the last years reads. What the graph needs is there since 13."""

AXES = {0: "batch", 2: "height", 3: "width"}


class Segmentation(nn.Module):
    """Normalisation, network, upsampling and the choice of a class.

    Args:
        model: In evaluation mode.
        output: "labels" or "probabilities".
    """

    def __init__(self, model: DeepLabV3, output: str) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        """Pixels, uint8 `(N, 3, H, W)`, to trainIds, uint8 `(N, H, W)`, or probabilities, float32 `(N, K, H, W)`."""
        logits: Tensor = self.model(image)  # (N, K, H, W)
        if self.output == "probabilities":
            return logits.softmax(1)  # (N, K, H, W)
        return logits.argmax(1).to(torch.uint8)  # (N, H, W)


def traced(model: DeepLabV3, output: str) -> ExportedProgram:
    """The graph of a network for any batch, height and width, its batch norms folded into its convolutions.

    Nothing of the machine that it was made on stays in it.

    Args:
        model: In evaluation mode, on the CPU.
        output: "labels" or "probabilities".
    """
    graph = Segmentation(place(folded(model), torch.device("cpu")), output)
    stride = model.config.output_stride
    example = torch.zeros((2, 3, 3 * stride + 1, 4 * stride + 1), dtype=torch.uint8)  # torch fixes sizes of 0 and 1
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, about itself
        sizes = dict.fromkeys(AXES, Dim.DYNAMIC)
        program = torch.export.export(graph.eval(), (example,), dynamic_shapes=(sizes,))
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(note, None)
    return program


def onnx_graph(program: ExportedProgram, output: str) -> bytes:
    """The program as a serialised ONNX model, whose input is `image` and whose output is called as `output` says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        converted = torch.onnx.export(
            program,
            program.example_inputs[0],
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[output],
        )
    assert converted is not None
    model = converted.model_proto
    del model.graph.value_info[:]  # shapes in torch's names for sizes; whoever needs them works them out anew
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        names = iter(AXES.values())  # in the order of the free sizes, of pixels and of every output
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = next(names)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def program_file(program: ExportedProgram, record: str) -> bytes:
    """The content of a `.pt2` file with its record."""
    program._example_inputs = None  # torch would store them as a pickle
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, content, extra_files={RECORD_FILE: record})
    return sealed_zip(content.getvalue())
