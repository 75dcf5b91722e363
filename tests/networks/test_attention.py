"""Attention: against plain formulas, and what may not reach what."""

import numpy as np
import torch

from chrep_model.networks.attention import POSITIONS, GeneAttention, SpotTransformer


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def test_gene_attention_is_the_written_formula():
    """C_bg = E_g + O sum_p softmax_p(q_g . k_p / sqrt(e)) v_p by heads; prediction w_g . C_bg + b_g."""
    net = seeded(lambda: GeneAttention(7, 8, 2))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    tokens = torch.randn(3, 5, 8)
    with torch.no_grad():
        prediction, context = net(tokens)
        q, k, v = net.query(net.before(net.genes)), net.key(tokens), net.value(tokens)
        for b in range(3):
            c = torch.empty(7, 8)
            for g in range(7):
                heads = []
                for h in (slice(0, 4), slice(4, 8)):
                    share = torch.softmax(k[b, :, h] @ q[g, h] / 4**0.5, 0)
                    heads.append(share @ v[b, :, h])
                c[g] = net.genes[g] + net.out(torch.cat(heads))
            expected = (net.weight * c).sum(1) + net.bias
            torch.testing.assert_close(prediction[b], expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(context[b], c.mean(0), atol=1e-5, rtol=1e-5)


def test_some_genes_are_columns_of_all():
    net = seeded(lambda: GeneAttention(9, 8, 4))
    torch.nn.init.normal_(net.genes)
    torch.nn.init.normal_(net.weight)
    tokens = torch.randn(4, 3, 8)
    with torch.no_grad():
        every, _ = net(tokens)
        some, _ = net(tokens, torch.tensor([8, 0, 0]))
    torch.testing.assert_close(some, every[:, [8, 0, 0]], atol=1e-6, rtol=1e-5)


def test_spots_hear_their_own_section_alone():
    net = seeded(lambda: SpotTransformer(6, heads=2, head_dim=4))
    g, place = torch.randn(10, 6), torch.rand(10, 2)
    section = torch.tensor([0] * 4 + [1] * 6)
    with torch.no_grad():
        whole = net(g, place, section)
        alone = net(g[:4], place[:4], section[:4])
        torch.testing.assert_close(whole[:4], alone, atol=1e-5, rtol=1e-5)
        changed = g.clone()
        changed[9, 0] += 3
        other = net(changed, place, section)
    torch.testing.assert_close(other[:4], whole[:4])
    assert float((other[4:9] - whole[4:9]).abs().max()) > 1e-4  # its own section does hear of it


def test_spots_know_their_place():
    net = seeded(lambda: SpotTransformer(6, heads=2, head_dim=4))
    g, section = torch.zeros(3, 6), torch.arange(3)  # each alone on its section
    with torch.no_grad():
        out = net(g, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), section)
    assert np.unique(out.numpy().round(4), axis=0).shape[0] == 3
    step = 1 / (POSITIONS - 1)  # neighbours on a Visium array, 128 columns, have places of their own
    with torch.no_grad():
        near = net(g[:2], torch.tensor([[0.2, 0.5], [0.2 + step, 0.5]]), section[:2])
    assert float((near[0] - near[1]).abs().max()) > 1e-4
