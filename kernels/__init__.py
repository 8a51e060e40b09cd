"""Operations on tensors, one per file. They know nothing of SinCUT."""
