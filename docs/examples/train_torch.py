"""Trains one line on several nodes with PyTorch, on processors alone (gloo). Start it on every node with

    torchrun --nnodes=$NNODES --node_rank=$NODE_RANK --nproc_per_node=1 --master_addr=$MASTER_ADDR --master_port=$MASTER_PORT train_torch.py
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS, RATE = 25, 0.4

dist.init_process_group("gloo")
rank, processes = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
xs = torch.rand(1000, 1, dtype=torch.float64) * 2 - 1
ys = 3 * xs - 2 + torch.randn(1000, 1, dtype=torch.float64) * 0.1
xs, ys = xs[rank::processes], ys[rank::processes]
line = torch.nn.Linear(1, 1, dtype=torch.float64)
torch.nn.init.zeros_(line.weight)
torch.nn.init.zeros_(line.bias)
model = DistributedDataParallel(line)
optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
for _ in range(STEPS):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(xs), ys)
    loss.backward()  # Adds up the gradients of all processes.
    optimizer.step()
total = loss.detach().clone()
dist.all_reduce(total)
print(f"loss {total.item() / processes:.6f}", flush=True)
dist.destroy_process_group()
