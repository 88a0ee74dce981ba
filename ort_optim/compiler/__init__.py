"""From a region to machine code: layers, steps, LLVM, images and their cache."""
