"""What the prose of each notebook says of its results: a sentence of it, and an expression.

The expression is evaluated where the notebook has ended, and must hold. Sentences stand in the
prose word by word; line breaks count as spaces. Every decimal and percentage of prose is in one.
"""

__all__ = ["CLAIMS"]


def _rho(task: str, name: str = "progress of 10") -> str:
    return f"mean.loc[({task!r}, {name!r}), 'rho'].round(2)"


def _at_cost(task: str) -> str:
    return f"both[both['outcome'] == 'cost'].set_index('task').loc[{task!r}, 'rho'].round(2)"


def _place(task: str, outcome: str, estimator: str) -> str:
    best = (
        f"losses[losses['task'] == {task!r}].groupby(['estimator', 'lr'])['loss_{outcome}'].mean()"
    )
    return f"{best}.groupby('estimator').min().rank()[{estimator!r}]"


def _places(estimator: str, outcome: str) -> str:
    return f"[{', '.join(_place(task, outcome, estimator) for task in ('VAE 4x4', 'VAE 6x2'))}]"


def _along_own_sample(decay: float) -> str:
    drawn = (
        f"own_sample(quadratic, logits, 400_000, torch.Generator().manual_seed(1), 1.0, {decay})"
    )
    g = "gradlab.exact_gradient(quadratic, logits)"
    return f"abs(float(({drawn}.mean(0) * {g}).sum() / {g}.square().sum()) - {decay}) < 0.01"


_BY_STEP = "rows.pivot(index='step', columns='estimator', values='{}')"
_HOT = "exact[(exact['series'] == 'GS-ST') & (exact['tau'].round(6) == 10)].iloc[0]"

CLAIMS: dict[str, list[tuple[str, str]]] = {
    "01_truth_and_first_estimator": [
        ("There are $3^2 = 9$ states.", "len(states) == 9"),
        (
            "the standard error of its mean is 1 % of the length of the gradient",
            "abs((variance / 15_912) ** 0.5 / float(truth.norm()) - 0.01) < 1e-6",
        ),
        ("Only REINFORCE changes", "(abs(plain - lifted) > 1e-9).tolist() == [0, 0, 0, 1]"),
        ("ST is exact for every loss that is linear", "abs(row['bias2']) < 1e-28"),
    ],
    "02_ladder_of_exactness": [
        ("a share 0.046 lies beyond 2", "round(2 * scipy.stats.norm.sf(2), 3) == 0.046"),
        ("ZGR's scores are compatible with it", "tests[0] > 0.05 and max(tests[1:]) < 1e-10"),
        (
            "the best $\\alpha$ moves from ST towards ZGR",
            "best[1] == 0 and list(best.values()) == sorted(best.values()) and best[1000] < 1",
        ),
        ("with a smaller variance on some losses", "rows['variance'][1] < rows['variance'][0]"),
    ],
    "03_temperature": [
        ("at 25 temperatures", "len(taus) == 25"),
        ("One enumeration of its 256 states", "4**4 == 256 and logits.shape == (4, 4)"),
        (
            "the bias of GS-ST is 0.92 of the gradient",
            f"round(({_HOT}['bias2'] / {_HOT}['truth2']) ** 0.5, 2) == 0.92",
        ),
        ("Its progress is 0.86 all the same", f"round({_HOT}['progress'], 2) == 0.86"),
        ("the fitted slopes in log-log are 1", "all(abs(s - 1) < 0.02 for s in slopes.values())"),
        ("$\\tau = 5.6$ for GS-ST", "round(best.loc[1, 'best tau of GS-ST'], 1) == 5.6"),
        ("$\\tau = 0.56$", "round(best.loc[1000, 'best tau of GS-ST'], 2) == 0.56"),
        (
            "(0.41 against 0.50)",
            "best.loc[1, ['ZGR', 'progress of GS-ST']].round(2).tolist() == [0.41, 0.5]",
        ),
        (
            "(0.982 against 0.976)",
            "best.loc[100, ['ZGR', 'progress of GS-ST']].round(3).tolist() == [0.982, 0.976]",
        ),
        (
            "an answer of 0 is better than ZGR and than RF(m=4)",
            "errors['error of one / |g|²'][['ZGR', 'RF(m=4)']].min() > 1",
        ),
        (
            "RF(m=4) has the largest error of one draw",
            "errors['error of one / |g|²'].idxmax() == 'RF(m=4)'",
        ),
        (
            "it makes the most progress at $B = 1000$",
            "errors['progress, B = 1000'].idxmax() == 'RF(m=4)'",
        ),
        (
            "4 draws of ZGR and 3 draws of RF(m=4)",
            "advice.table.set_index('estimator').loc[['ZGR', 'RF(m=4)'], 'draws_each'].tolist()"
            " == [4, 3]",
        ),
        ("carries 99 % of the second moment", "'99 % in this share of draws' in table"),
        ("fewer than 100 effective draws", "gradlab.plots.curves.FEW_DRAWS == 100"),
        (
            "more runs come out too low than too high",
            "runs_at.loc[0.01, 'runs below the exact variance'] > 0.5",
        ),
        (
            "the first three differ by less than 0.002",
            "0 <= advice.table['progress'][0] - advice.table['progress'][2] < 0.002"
            " and advice.table['estimator'][2] == 'ST'",
        ),
    ],
    "04_your_own_loss_and_estimator": [
        (
            "to within 0.25 of the smallest value of $f$",
            "max(values[-1] for values in curves.values()) - best < 0.25",
        ),
        (
            "ends lowest of the three estimators here",
            "min(ends[:-1], key=lambda e: e[2])[0] == str(mine)",
        ),
        ("all of shape `[..., C]`", "mine.pullback(p[:1], p[:1], p[:1]).shape == p[:1].shape"),
        ("A weight below 1/2", "weights[rows['mse'].argmin()] == 0.3"),
        ("The direction is the same for all weights.", "rows['cosine'].std() < 1e-12"),
    ],
    "05_is_my_gradient_right": [
        (
            "the dashed line is the true bias, 2 %, of the estimator that is scaled by 0.98",
            "torch.allclose(slightly_wrong(f, logits, 9, torch.Generator().manual_seed(0)), 0.98 *"
            " right(f, logits, 9, torch.Generator().manual_seed(0)))",
        ),
        ("by 0.9, 0.98 and 0.995", "list(verdicts) == [0.9, 0.98, 0.995]"),
        ("A factor of 0.9 is found at once", "verdicts[0.9].draws < 3000"),
        ("so 0.995 stays undecided", "verdicts[0.995].outcome == 'INCONCLUSIVE'"),
        ("every second one of the 22", "len(PLANTED) == 22 and len(rows) == 11"),
        ("What is REFUSED", "'REFUSED' in set(rows['outcome'])"),
        ("which must pass", "set(rows['right_outcome']) == {'UNBIASED'}"),
    ],
    "06_the_zoo": [
        (
            "is first on the quadratic and on the network",
            "all(tables[n]['estimator'].iloc[0] == 'LE' for n in ('quadratic', 'mlp'))",
        ),
        (
            "SAS, which sums over states, is first on the cubic",
            "tables['cubic']['series'].iloc[0].startswith('SAS')",
        ),
        (
            "the first places belong to unbiased estimators",
            "all((tables[n]['cosine'][:10] > 1 - 1e-9).all() for n in ('cubic', 'mlp'))",
        ),
        (
            "ST-ZGR(0.5) and GR at a temperature of 0.56 come third and fourth",
            "tables['quadratic']['estimator'].iloc[2:4].tolist() =="
            " ['ST-ZGR(alpha=0.5)', 'GR(tau=0.56, k=10)']",
        ),
        (
            "45 of 49 err by more",
            "((by_series['rmse'] > 1).sum(), len(by_series)) == (45, 49)",
        ),
        (
            "UNORD(4) and the fitted LEARNED are unbiased",
            "set(by_series[:4].query('declared_unbiased')['name'])"
            " == {'UNORD(k=4)', 'LEARNED fitted'}",
        ),
        ("the mean shrinks by the factor 0.9.", _along_own_sample(0.9)),
        ("cost at decay 0.95?", "verdict.outcome == 'BIASED'"),
        ("The mean shrinks by the factor 0.95.", _along_own_sample(0.95)),
        (
            "They have the same mean and the same variance.",
            "max(abs(rows[c][0] / rows[c][1] - 1) for c in ('bias2', 'variance')) < 1e-9",
        ),
    ],
    "07_a_vae_under_the_probe": [
        ("Four variables of four classes have 256 states.", "C**N == 256"),
        (
            "ST has the largest bias at every moment, and ZGR the smallest",
            f"{_BY_STEP.format('relative_bias')}.idxmax(axis=1).eq('ST').all() and"
            f" {_BY_STEP.format('relative_bias')}.drop(columns='RF(m=4)').idxmin(axis=1)"
            ".eq('ZGR').all()",
        ),
        (
            "that of ST is always the smallest",
            f"{_BY_STEP.format('relative_sd')}.idxmin(axis=1).eq('ST').all()",
        ),
        (
            "ST makes the most progress at the start and at step 120",
            f"{_BY_STEP.format('progress')}.idxmax(axis=1)[[0, 120]].eq('ST').all()",
        ),
        (
            "RF(m=4) is ahead with 0.87, and ST has 0.39",
            "late['progress'].idxmax() == 'RF(m=4)'"
            " and late['progress'].round(2)[['RF(m=4)', 'ST']].tolist() == [0.87, 0.39]",
        ),
        ("a cosine of 0.70 with the gradient", "round(late.loc['ST', 'cosine'], 2) == 0.7"),
        ("optimizer with momentum 0.9", "gradlab.comparison.rows.AVERAGED == round(1 / (1 - 0.9))"),
        (
            "ZGR goes from 0.49 to 0.78, and ST from 0.39 to 0.48 only",
            "[progress_at(late.loc[['ZGR', 'ST']], B)[0].round(2).tolist() for B in (10, 100)]"
            " == [[0.49, 0.39], [0.78, 0.48]]",
        ),
        ("7.5 of RF(m=4)", "30 / late.loc['RF(m=4)', 'cost'] == 7.5"),
        ("than one of the others, by a third", "set(late['cost']) == {3, 4}"),
        (
            "0.84, against 0.49 of ZGR",
            "table.loc[200, ['RF(m=4)', 'ZGR']].round(2).tolist() == [0.84, 0.49]"
            " and table.loc[200].idxmax() == 'RF(m=4)'",
        ),
        (
            "all are within three standard errors of 0",
            "(large.rows['bias2'].abs() < 3 * large.rows['bias2_se']).all()",
        ),
        (
            "about a hundred times the variance of ST",
            "large.rows.pivot(index='step', columns='estimator', values='variance')"
            ".eval('`RF(m=4)` / ST').between(80, 140).all()",
        ),
        (
            "so ST makes the most progress at all three moments",
            "large.rows.pivot(index='step', columns='estimator', values='progress').idxmax(axis=1)"
            ".eq('ST').all()",
        ),
        (
            "The numbers change by 0.03 at most, and the order stays.",
            "(roots['the loss'] - roots['its root']).abs().max() < 0.035"
            " and (roots.rank()['the loss'] == roots.rank()['its root']).all()",
        ),
        (
            "With 5 images ST comes second, and with 50 it is last.",
            "found['5 images'].rank()['ST'] == 4 and found['50 images'].rank()['ST'] == 1",
        ),
    ],
    "08_does_it_predict_training": [
        (
            "So 16 estimators were trained on eight small tasks",
            "tasks['estimator'].nunique().tolist() == [16] * 8 + [6]",
        ),
        (
            "place 5 of 16",
            "criteria[criteria['task'] == 'VAE 4x4'].groupby('estimator')['error 1'].mean()"
            ".rank()['GR(tau=3.2, k=10)'] == 5",
        ),
        ("its loss is on place 13", f"{_place('VAE 4x4', 'steps', 'GR(tau=3.2, k=10)')} == 13"),
        ("The bars are 95 % intervals", "(mean['low'] <= mean['rho'] + 1e-9).all()"),
        (
            "at 0, 5, 15, 30, 60 and 100 % of its steps",
            "criteria.loc[criteria['task'] == 'VAE 4x4', 'step'].div(2.4).unique().tolist()"
            " == [0, 5, 15, 30, 60, 100]",
        ),
        (
            "Progress of 10 has the largest median, 0.94.",
            "medians['mean'].idxmax() == 'progress of 10'"
            " and medians['mean'].max().round(2) == 0.94",
        ),
        (
            "The error of one gradient has 0.15, the cosine 0.70.",
            "medians['mean'][['error of 1', 'cosine']].round(2).tolist() == [0.15, 0.7]",
        ),
        (
            "progress of 10 has 0.33 there",
            "round(medians.loc['progress of 10', 'start'], 2) == 0.33",
        ),
        ("At the start every criterion says little", "medians['start'].max() < 0.65"),
        (
            "One look after 5 % of the steps has 0.88",
            "round(medians.loc['progress of 10', 'early'], 2) == 0.88",
        ),
        ("An optimizer with momentum 0.9 averages about 10.", "round(1 / (1 - 0.9)) == 10"),
        (
            "0.94, against 0.89 for 1 and 0.87 for 100",
            "by_number.round(2)[[10, 1, 100]].tolist() == [0.94, 0.89, 0.87]",
        ),
        (
            "with 1 they have 0.51 and 0.43",
            f"[{_rho('VAE 4x4', 'progress of 1')}, {_rho('VAE 6x2', 'progress of 1')}]"
            " == [0.51, 0.43]",
        ),
        (
            "The quantized network prefers 1.",
            "mean['rho']['quantized 5x4'].filter(like='progress').idxmax() == 'progress of 1'",
        ),
        ("### The quantized network: 0.42", f"{_rho('quantized 5x4')} == 0.42"),
        ("GS-ST and GR at temperature 3.2.", "quantized.index[:2].tolist() == hot"),
        ("with a cosine of 0.64", "quantized['cosine'][hot].round(2).tolist() == [0.64, 0.64]"),
        (
            "Without these two the correlation is 0.88",
            "spearmanr(quantized.drop(hot)[['progress 10', 'loss_steps']]).statistic.round(2)"
            " == -0.88",
        ),
        ("### MNIST: 0.49", f"{_rho('binarized MNIST 30x10')} == 0.49"),
        ("random order of six reach 0.49", "round((chance > 0.48).mean(), 2) == 0.18"),
        ("So 0.49 neither confirms", f"{_rho('binarized MNIST 30x10')} == 0.49"),
        (
            "from 0.87 and 0.95 to 0.42 and 0.25",
            f"[{_rho('VAE 4x4')}, {_rho('VAE 6x2')}, {_at_cost('VAE 4x4')}, {_at_cost('VAE 6x2')}]"
            " == [0.87, 0.95, 0.42, 0.25]",
        ),
        ("EMA is last on both VAEs", f"{_places('EMA', 'steps')} == [16, 16]"),
        ("it is on places 6 and 3", f"{_places('EMA', 'cost')} == [6, 3]"),
        (
            "falls from places 1 and 3 to the last",
            f"{_places('RF(m=10)', 'steps')} + {_places('RF(m=10)', 'cost')} == [1, 3, 16, 16]",
        ),
        (
            "the last column has 0.43 and 0.04",
            "per_evaluation[['VAE 4x4', 'VAE 6x2']].round(2).tolist() == [0.43, 0.04]",
        ),
        (
            "on seven of nine tasks, with a correlation of 0.87 or more",
            "(mean.xs('progress of 10', level='name')['rho'].round(2) >= 0.87).sum() == 7",
        ),
    ],
    "09_the_theorem_on_structures": [
        (
            "ZGR leaves rounding level at degree 3 only, on all four.",
            "(table['ZGR'][[1, 2]] < 1e-13).all(None) and (table['ZGR'][3] > 0.1).all()",
        ),
        (
            "ST and DARN leave it at degree 2, and err by the same amount.",
            "(table['ST'][2] > 0.1).all()"
            " and ((table['ST'][2] / table['DARN'][2] - 1).abs() < 1e-6).all()",
        ),
        (
            "Without bias their standard deviation is 1.",
            "abs(scores['ZGR'].std() - 1) < 0.1 and min(scores[t].std() for t in names[:2]) > 2",
        ),
        (
            "So test it where no probability enters: on every pair of states",
            "all((value < 1e-12) == (key[1] < 3) for key, value in residual.items())",
        ),
        (
            "and pays for the missing bias with variance",
            "(ratio > 4).all()",
        ),
        (
            "another law than `KSubset` with the same $\\theta$",
            "abs(two['KSubset'] - two['WithoutReplacement']).max() > 0.02",
        ),
        (
            "For linear $f$ the terms $(i, j)$ and $(j, i)$ add up to the gradient.",
            "missed[1]['λ → 0'] < 1e-12 < 1e-3 < missed[1]['λ = 0.01']",
        ),
        ("For other $f$ they do not.", "min(missed[2]['λ → 0'], missed[3]['λ → 0']) > 0.1"),
        (
            "Both are $\\tfrac12 [(\\partial\\mu/\\partial\\theta)^\\top v",
            "(products[0] - products[1]).abs().max() < 1e-15",
        ),
        (
            "At $k = 1$, where both are the categorical, and at $k = n$",
            "max(apart[1], apart[4]) < 1e-14 and min(apart[2], apart[3]) > 0.01",
        ),
    ],
    "10_bounds": [
        ("over 47,905 multisets", "math.comb(4 + 64 - 1, 64) == 47_905"),
        (
            "about halves when $K$ doubles",
            "all(0.4 < (log_p - b) / (log_p - a) < 0.6 for a, b in zip(values, values[1:]))",
        ),
        (
            "PLAIN has 28 times the variance of VIMCO at $K = 2$, and 175 times at $K = 4$",
            "(tables['variance'].loc['PLAIN'] / tables['variance'].loc['VIMCO'])[[2, 4]]"
            ".round().tolist() == [28, 175]",
        ),
        (
            "has less variance than VIMCO from $K = 3$ on",
            "(tables['variance'].loc['OVIS(gamma=0)'] < tables['variance'].loc['VIMCO']).tolist()"
            " == [False, True, True]",
        ),
        (
            "LE has the smallest variance of the unbiased ones",
            "(tables['variance'][(tables['bias'] < 1e-9).all(axis=1)].idxmin() == 'LE').all()",
        ),
        (
            "OVIS(gamma=1) is biased by 0.68, 1.50 and 2.40 gradients",
            "tables['bias'].loc['OVIS(gamma=1)'].round(2).tolist() == [0.68, 1.5, 2.4]",
        ),
        (
            "So the bias is $K - 1$ gradients",
            "abs(weak.bias2(g) ** 0.5 / float(g.norm()) / 7 - 1) < 0.01",
        ),
        (
            "PLAIN loses signal like $K^{-3/2}$ and VIMCO like $K^{-1/2}$",
            "abs(slopes['PLAIN'] + 1.5) < 0.05 and abs(slopes['VIMCO'] + 0.5) < 0.05",
        ),
        (
            "OVIS and LE gain like $K^{1/2}$",
            "all(abs(slopes[n] - 0.5) < 0.05 for n in ('OVIS(gamma=0)', 'OVIS-MC(s=10)', 'LE'))",
        ),
        (
            "At $K = 1$ it is exact",
            "(zgr[(zgr['estimator'] == 'ZGR') & (zgr['K'] == 1)]['bias'] < 1e-12).all()",
        ),
        (
            "At which $K$ does VIMCO have less variance",
            "uneven.pivot(index='K', columns='estimator', values='variance').diff(axis=1)['VIMCO']"
            ".lt(0).tolist() == [True, True, True, False, False]",
        ),
    ],
    "11_policy_gradients": [
        ("there are 15 sequences", "task.tree.size == 15"),
        ("RLOO is exact.", "rows['bias'].iloc[0] < 1e-12"),
        (
            "has $(G - 1)/G$ of the gradient",
            "abs(rows['bias'].iloc[1] - 1 / 8) < 1e-12 and abs(rows['cosine'].iloc[1] - 1) < 1e-12",
        ),
        ("GRPO changes the direction too", "rows['cosine'].iloc[2] < 0.9999"),
        (
            "in the same wrong direction at every $G$, here with a cosine of 0.990",
            "cosine['SEQ'].round(3).tolist() == [0.99] * 5 and np.ptp(cosine['SEQ']) < 1e-12",
        ),
        (
            "TOK comes closer and closer as $G$ grows",
            "cosine['TOK'].is_monotonic_increasing and cosine['TOK'].iloc[-1] > 0.9999",
        ),
        (
            "GSPO and GMPO as published have the direction of SEQ",
            "all(abs(float(exact_moments(f'RLOO(aggregation=SEQ, loss={loss})', policy, task)"
            ".cosine(gradient)) - cosine['SEQ'].iloc[0]) < 1e-12 for loss in ('GSPO', 'GMPO'))",
        ),
        (
            "At $G = 2$ the factor is constant, $\\sqrt 2 / 2$",
            "abs(factors['GRPO(g=2)'] - 2**0.5 / 2).max() < 1e-12",
        ),
        (
            "which favours easy and hard prompts",
            "factors['GRPO(g=64)'].argmin() in (49, 50)",
        ),
        ("MaxRL favours hard ones alone", "(np.diff(factors['MaxRL(g=8)']) < 0).all()"),
        (
            "Only the ratio of whole sequences is exact",
            "sorted(off[(off['drift'] > 0) & (off['bias'] < 1e-9)]['ratio'].unique())"
            " == ['sequence']",
        ),
        (
            "At a drift of 0.25 it has less than 1.3 times the variance of no ratio, at a drift of "
            "1 more than 20 times",
            "(lambda v: v[0.25] < 1.3 and v[1.0] > 20)("
            "off[off['ratio'] == 'sequence'].set_index('drift')['variance']"
            " / off[off['ratio'] == 'none'].set_index('drift')['variance'])",
        ),
        (
            "k1 in the loss has a bias of the whole gradient",
            "abs(kl['bias']['k1 in loss'] - 1) < 1e-12",
        ),
        (
            "Ratio-weighted k3 is k2 per token",
            "abs(kl.loc['ratio-weighted k3', ['bias', 'variance', 'cosine']]"
            " / kl.loc['k2 per token', ['bias', 'variance', 'cosine']] - 1).max() < 1e-9",
        ),
        ("here by 27 % of the gradient", "round(kl['bias']['k2 per token'], 2) == 0.27"),
        (
            "exact, and has the smallest variance of all six",
            "kl['bias']['full'] < 1e-12 and kl['variance'].idxmin() == 'full'",
        ),
        (
            "takes the mean over the tokens of each sequence, and its baseline holds the own "
            "sample",
            "'aggregation=SEQ' in str(report.match)"
            " and any('own' in str(fault) for fault in report.faults)",
        ),
        (
            "its variance falls even below that of no ratio",
            "last['variance'].iloc[0] < off[(off['ratio'] == 'none') & (off['drift'] == 1)]"
            "['variance'].iloc[0] and last['bias'].iloc[0] > 0.1",
        ),
    ],
}
