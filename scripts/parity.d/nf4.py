"""Makes what daemon/tensor's NF4 is held against: numbers in the 4 bits that bitsandbytes gives them (blocks of 64, scales
not rounded again), and what it makes of them again.

    FILE   values [N], codes [ceil(N/2)] u8, scales [ceil(N/64)], opened [N]; f32 but for the codes

Among the values are normal ones at several sizes, each level and each middle between two, zeros, and a block that is cut
short."""

import sys

import bitsandbytes.functional as functional
import torch
from safetensors.torch import save_file

torch.manual_seed(11)
levels = functional.get_4bit_type("nf4", device="cpu")
middles = (levels[1:] + levels[:-1]) / 2
edges = torch.zeros(64)
edges[:16], edges[16:31], edges[31:46] = levels, middles, torch.nextafter(middles, torch.tensor(2.0))
sized = torch.randn(48, 64) * 10.0 ** torch.linspace(-6, 3, 48)[:, None]
values = torch.cat([sized.flatten(), edges, torch.zeros(64), torch.randn(30)])
codes, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=False)
opened = functional.dequantize_4bit(codes, state)
save_file({"values": values, "codes": codes.flatten(), "scales": state.absmax.float(), "opened": opened}, sys.argv[1])
