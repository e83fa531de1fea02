#pragma once

namespace polystill {

// Makes the C library keep memory that is freed, instead of handing it back to the kernel: batches, activations and
// answers of megabytes come and go with every step, and fresh memory costs a page fault every 4 KiB, which for a copied
// answer takes longer than the copy. Each arena (threads share a few) keeps at most 256 MiB more than is in use. First
// thing in main; nothing without glibc.
void KeepFreedMemory();

}  // namespace polystill
