/** Converts the API's explanation of an evaluation to rungs, the rows of a `Ladder`. */

import type { Explanation, Flag, LayerExplanation, TargetingRule } from '../api/types';
import { layerInfo, Value } from '../values/parts';
import type { Rung, RungState } from './Ladder';
import { type ReasonContext, reasonText } from './reasons';

export interface RungContext {
  readonly userName: string;
  readonly flag: Flag | undefined;
  readonly formatTime: (instant: string) => string;
}

export function rungsOf(explanation: Explanation, context: RungContext): Rung[] {
  const decidedAt = explanation.layers.findIndex((layer) => layer.outcome === 'matched');
  return explanation.layers.map((layer, index) => {
    const rule = context.flag?.targeting_rules.find(({ id }) => id === layer.rule_id);
    const state: RungState = layer.outcome === 'matched' ? 'decides' : index > decidedAt ? 'hidden' : 'passed';
    const reasons: ReasonContext = { ...context, override: explanation.override, rule };
    return {
      id: `${layer.layer}-${layer.rule_id ?? ''}`,
      layer: layer.layer,
      state,
      name: layerName(layer, rule),
      end: layerEnd(layer),
      why: layerWhy(layer, reasons, explanation),
    };
  });
}

function layerName({ layer, rule_id }: LayerExplanation, rule: TargetingRule | undefined): string {
  if (layer === 'targeting_rule') return `Rule “${rule?.name ?? rule_id}”`;
  if (layer === 'disabled') return 'Switch';
  if (layer === 'scheduled_change') return 'Scheduled change';
  if (layer === 'evaluation_too_expensive') return 'Evaluation budget';
  return layerInfo(layer).label;
}

function layerEnd({ layer, would_match, value }: LayerExplanation) {
  if (would_match) return <Value value={value} className="cut" />;
  if (layer === 'disabled') return 'on';
  if (layer === 'targeting_rule') return 'no match';
  return 'none';
}

function layerWhy(layer: LayerExplanation, context: ReasonContext, explanation: Explanation): string {
  if (layer.why_not) return reasonText(layer.why_not, context);
  if (layer.outcome === 'not_reached') return hiddenText(layer, explanation);
  switch (layer.layer) {
    case 'override': {
      const expiry = context.override?.expires_at;
      return expiry ? `Until ${context.formatTime(expiry)}` : 'Never expires';
    }
    case 'disabled':
      return 'The flag is off for all users without an override';
    case 'targeting_rule':
      return splitText(layer) ?? 'All conditions of the rule apply';
    case 'scheduled_change':
      return splitText(layer) ?? 'The change has taken effect';
    case 'evaluation_too_expensive':
      return 'The evaluation cost more than its budget, so the flag serves its off variant';
    case 'archived':
      return 'The flag is archived, so it has no value';
    case 'invalid':
      return 'The definition of the flag cannot be read';
    case 'default':
      return splitText(layer) ?? 'No layer above applies';
  }
}

function hiddenText(layer: LayerExplanation, explanation: Explanation): string {
  const lower = explanation.layers.slice(explanation.layers.findIndex(({ outcome }) => outcome === 'matched') + 1);
  const isNext = lower.find(({ would_match }) => would_match) === layer;
  const decider = explanation.resolution?.source === 'override' ? 'the override' : 'the layer above';
  return isNext ? `Would decide without ${decider}` : 'Applies, but a layer above decides';
}

function splitText({ split }: LayerExplanation): string | null {
  if (!split) return null;
  if (split.bucket === null) return `Percentage split by ${split.bucket_by}; the user has no such value`;
  const percent = (split.bucket / 1000).toLocaleString('en-GB', { maximumFractionDigits: 3 });
  return `Percentage split by ${split.bucket_by}: position ${percent} of 100`;
}
