"""The heavy scans in Triton, forward and backward; they need only torch and Triton.

Each operator has a file of its name, with what the library calls, and those of its passes:

    linear_attention    forward and launch; backward: linear_attention_backward
    delta_rule          launch; what all chunks have at once: triangles, with their inverse;
                        the walk over the chunks: delta_rule_forward; delta_rule_backward
    deltaformer         forward and launch, what a token erases: erase; deltaformer_backward

All of them are made of tiles (load, store, multiply), chunks (which rows a chunk has), decay and
channel_decay (the decays in it), and state. One token of a scan is a step, few long sequences are
cut into pieces, and launch has the sizes with which everything is launched.
"""
