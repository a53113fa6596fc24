"""Losses as they stand in trainers: methods with `self`, modules, functions with their helpers.

They are written again here, in the least that has the interface: what is read of `self`, of the
inputs and of the configuration.
"""

import pytest
import torch

from gradlab.cli import main
from gradlab.sequences import LossFunctionError, OwnLoss, Tabular, examine, tasks, verify
from gradlab.sequences.argument_names import Settings
from gradlab.sequences.trainer_method import TrainerMethod, made_of_class, reads_self

METHOD = """
import torch


@staticmethod
def get_off_policy_mask(advantages, per_token_logps, sampling_per_token_logps, mask, threshold):
    moved = ((sampling_per_token_logps - per_token_logps.detach()) * mask).sum(1, keepdim=True)
    return ((advantages >= 0) | (moved / mask.sum(1, keepdim=True) <= threshold)).to(mask.dtype)


def _mode(self):
    return "train" if self.model.training else "eval"


def _compute_loss(self, model, inputs):
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = inputs["completion_mask"]
    if "tool_mask" in inputs:
        mask = mask * inputs["tool_mask"]
    logps, entropies, aux = self._get_per_token_logps_and_entropies(
        model, ids, torch.ones_like(ids), mask.size(1), compute_entropy=True,
        compute_aux_loss=self.aux_loss_enabled, pixel_values=inputs.get("pixel_values"),
    )
    advantages = inputs["advantages"]
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1)
    old = inputs.get("old_per_token_logps")
    log_weight = logps - old
    if self.importance_sampling_level == "sequence":
        log_weight = (log_weight * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    ratio = torch.exp(log_weight)
    if self.beta != 0.0:
        apart = inputs["ref_per_token_logps"] - logps
        kl = torch.exp(apart) - apart - 1
        kl = kl * ratio if self.args.use_bias_correction_kl else kl
    if self.loss_type == "cispo":
        terms = -ratio.clamp(max=self.epsilon_high).detach() * advantages * logps
    else:
        bounded = ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high)
        if self.args.delta is not None:
            ratio = ratio.clamp(max=self.args.delta)
        terms = -torch.min(ratio * advantages, bounded * advantages)
    if self.off_policy_mask_threshold is not None:
        terms = terms * self.get_off_policy_mask(
            advantages, logps, inputs.get("sampling_per_token_logps", old), mask,
            self.off_policy_mask_threshold,
        )
    if self.beta != 0.0:
        terms = terms + self.beta * kl
    if self.loss_type == "grpo":
        loss = ((terms * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
        loss = loss / self.current_gradient_accumulation_steps
    elif self.loss_type == "dr_grpo":
        loss = (terms * mask).sum() / (terms.size(0) * self.max_completion_length)
    else:
        items = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        loss = (terms * mask).sum() / items
    stats = self.accelerator.reduce(torch.stack([entropies.sum(), mask.sum()]), reduction="sum")
    self._metrics[self._mode()]["entropy"].append((stats[0] / stats[1]).item())
    gathered = self.accelerator.gather((ratio < 0.8).double().mean(-1))
    self._metrics[self._mode()]["clip"].append(nanmin(gathered).item())
    return loss


def by_sequences(self, model, inputs):
    logps, _, _ = self._get_per_token_logps_and_entropies(model, None, None, 1, compute_aux_loss=0)
    w = torch.exp((logps * inputs["completion_mask"]).sum(1) - inputs["old_logps"])
    a = inputs["advantages"]
    return -torch.min(w * a, w.clamp(1 - self.epsilon_low, 1 + self.epsilon_high) * a).mean()


def older(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    logps = self._get_per_token_logps(model, inputs["completion_ids"], None, 4)
    a, mask = inputs["advantages"].unsqueeze(1), inputs["completion_mask"]
    return -(torch.exp(logps - logps.detach()) * a * mask).sum() / num_items_in_batch


def reads_more(self, model, inputs):
    return self.alpha_of_mine * inputs["per_token_logps"].sum()


def wants_more(self, model, inputs, vocabulary):
    return inputs["per_token_logps"].sum()


class PolicyLoss(torch.nn.Module):
    def __init__(self, clip_eps_low=0.2, clip_eps_high=0.2, dual_clip=None, policy_loss_type="ppo"):
        super().__init__()
        self.low, self.high, self.dual = clip_eps_low, clip_eps_high, dual_clip
        self.kind = policy_loss_type

    def forward(
        self, log_probs, old_log_probs, advantages, action_mask=None, rollout_log_probs=None,
        dp_size=1, batch_num_tokens=None, global_batch_size=None,
    ):
        log_ratio = log_probs - old_log_probs
        if self.kind == "gspo":
            log_ratio = (log_ratio * action_mask).sum(-1, True) / action_mask.sum(-1, True)
        ratio = log_ratio.exp()
        terms = torch.min(ratio * advantages, ratio.clamp(1 - self.low, 1 + self.high) * advantages)
        if self.dual is not None:
            bounded = torch.max(terms, self.dual * advantages)
            terms = torch.where(advantages < 0, bounded, terms)
        if self.kind == "gspo":
            means = (terms * action_mask).sum(-1) / action_mask.sum(-1)
            loss = -means.sum() / global_batch_size * dp_size
        else:
            loss = -(terms * action_mask).sum() / batch_num_tokens * dp_size
        return loss, 0.0, 0.0, None


def agg_loss(loss_mat, loss_mask, loss_agg_mode):
    if loss_agg_mode == "token-mean":
        return (loss_mat * loss_mask).sum() / loss_mask.sum()
    means = (loss_mat * loss_mask).sum(-1) / (loss_mask.sum(-1) + 1e-8)
    return means.mean()


def compute_policy_loss(
    old_log_prob, log_prob, advantages, response_mask, cliprange=None, cliprange_low=None,
    cliprange_high=None, clip_ratio_c=3.0, loss_agg_mode="token-mean",
):
    ratio = torch.exp(torch.clamp(log_prob - old_log_prob, min=-20.0, max=20.0))
    low = cliprange if cliprange_low is None else cliprange_low
    high = cliprange if cliprange_high is None else cliprange_high
    first = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))
    second = torch.min(-advantages * clip_ratio_c, first)
    terms = torch.where(advantages < 0, second, first)
    return agg_loss(terms, response_mask, loss_agg_mode), 0.0, 0.0


def nested(
    old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None
):
    share = config.policy_loss.kl_cov_ratio if config.policy_loss.kl_cov_ratio is not None else 0.1
    coef = config.policy_loss.ppo_kl_coef
    log_ratio = log_prob - old_log_prob
    kept = response_mask > 0
    a, logp = advantages[kept], log_prob[kept].detach()
    covariance = (a - a.mean()) * (logp - logp.mean())
    top = torch.topk(covariance, max(1, int(len(covariance) * share))).indices
    chosen = torch.zeros(len(covariance), dtype=log_prob.dtype)
    chosen[top] = 1
    pull = torch.zeros_like(log_prob)
    pull[kept] = chosen
    terms = -advantages * log_ratio.exp() + coef * pull * log_ratio.abs()
    return agg_loss(terms, response_mask, loss_agg_mode)
"""


@pytest.fixture
def my(tmp_path, monkeypatch):
    """Return what a file with the code above defines, and go to its folder."""
    from gradlab.user_code.objects import load_object

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(METHOD)
    return lambda name: load_object(f"my.py:{name}")


TRL = [
    ({}, "PPO, aggregation TOK of"),
    ({"loss_type": "grpo", "beta": 0.04}, "PPO, aggregation SEQ, KL k3 of"),
    (
        {"beta": 0.1, "use_bias_correction_kl": True},
        "PPO, aggregation TOK, KL k3-ratio(beta=0.1) of",
    ),
    ({"loss_type": "dr_grpo", "epsilon_high": 0.28}, "PPO(high=0.28), aggregation CONST of"),
    ({"loss_type": "cispo", "epsilon_high": 5.0}, "CISPO-TRL, aggregation TOK of"),
    ({"importance_sampling_level": "sequence", "loss_type": "grpo"}, "GSPO(low=0.2, high=0.2), "),
    ({"off_policy_mask_threshold": 0.05, "loss_type": "grpo"}, "OPSM(delta=0.05), aggregation SEQ"),
]


@pytest.mark.parametrize(("settings", "said"), TRL)
@pytest.mark.few(3)
def test_a_method_of_trl_is_read_with_its_settings(my, settings, said):
    report = examine(my("_compute_loss"), settings=settings)
    assert f"this is {said}" in str(report.match)
    assert report.faults == ()
    assert set(report.failing) <= {"-inf log-probabilities"}


def test_other_methods(my):
    assert str(examine(my("by_sequences")).match).startswith(
        "this is PPO-sequence, aggregation SEQ"
    )
    assert str(examine(my("older")).match).startswith("this is score, aggregation TOK")


def test_the_verdict_on_a_method_is_that_of_its_estimator(my):
    own = OwnLoss(my("by_sequences"), advantage="loo", g=2)
    verdict = verify(own, Tabular(3, 3), tasks.lengthy())
    assert (verdict.outcome, verdict.method, verdict.claimed) == ("UNBIASED", "exact", True)


def test_what_a_stand_in_has_not_is_said_with_the_way_out(my):
    said = r"reads self.alpha_of_mine.*\(--set alpha_of_mine=VALUE\), or copy it into the file too"
    with pytest.raises(LossFunctionError, match=said):
        examine(my("reads_more"))
    with pytest.raises(LossFunctionError, match=r"takes 'vocabulary', which is not understood"):
        examine(my("wants_more"))


MODULES = [
    ({}, "PPO, aggregation TOK of"),
    ({"policy_loss_type": "gspo"}, "GSPO(low=0.2, high=0.2), aggregation SEQ of"),
    ({"dual_clip": 3.0, "clip_eps_high": 0.28}, "PPO(high=0.28, dual=3), aggregation TOK of"),
]


@pytest.mark.parametrize(("settings", "said"), MODULES)
@pytest.mark.few(1)
def test_the_class_of_a_loss_is_made_with_its_settings(my, settings, said):
    match = examine(my("PolicyLoss"), settings=settings).match
    assert f"this is {said}" in str(match)


def test_a_class_whose_own_code_refuses(my):
    class Refuses(torch.nn.Module):
        def __init__(self):
            raise ValueError("no")

        def forward(self, log_prob, advantages):
            return log_prob.sum()

    with pytest.raises(TypeError, match="cannot be made, it raised ValueError: no"):
        made_of_class(Refuses, {})


def test_the_loss_of_verl_has_its_helpers_and_clip(my):
    match = examine(my("compute_policy_loss")).match
    assert "this is PPO(dual=3), aggregation TOK of" in str(match)
    given = {"cliprange": 0.1, "loss_agg_mode": "seq-mean-token-mean"}
    match = examine(my("compute_policy_loss"), settings=given).match
    assert "this is PPO(low=0.1, high=0.1, dual=3), aggregation SEQ of" in str(match)


def test_a_section_of_the_configuration_has_the_settings(my):
    assert Settings(kl_cov_ratio=0.5).policy_loss.kl_cov_ratio == 0.5
    match = examine(my("nested"), settings={"ppo_kl_coef": 0.5}).match
    assert "this is KL-Cov(coef=0.5), aggregation TOK of" in str(match)


def test_only_plain_functions_with_self_are_methods():
    class Trainer:
        def loss(self, log_prob, advantages):
            return -(log_prob * advantages[:, None]).sum()

    assert reads_self(Trainer.loss)
    assert not reads_self(Trainer().loss)
    assert not reads_self(torch.nn.Identity())
    assert TrainerMethod(Trainer.loss).__name__ == "loss"
    assert examine(Trainer.loss).match.exact


@pytest.mark.usefixtures("my")
@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        ("--file my.py:_compute_loss", "_compute_loss: this is PPO, aggregation TOK of", 0),
        ("--file my.py:_compute_loss --set loss_type=grpo --set beta=0.1", "KL k3(beta=0.1) of", 0),
        ("--file my.py:PolicyLoss --set policy_loss_type=gspo", "PolicyLoss: this is GSPO", 0),
        ("--file my.py:compute_policy_loss", "compute_policy_loss: this is PPO(dual=3)", 0),
        ("--file my.py:by_sequences --advantage loo", "UNBIASED, proved", 0),
    ],
)
@pytest.mark.few(2)
def test_on_the_command_line(words, said, status, capsys):
    assert main(["policy", "verify", *words.split()]) == status
    assert said in " ".join(capsys.readouterr().out.split())
