// Every kernel, as one unit: NVIDIA's compiler makes the engine's binary of it, and emulation.cpp includes it.
#include "shim.h"

#include "rows.cu"
#include "heads.cu"
#include "attention.cu"
#include "loss.cu"
#include "optimizer.cu"
