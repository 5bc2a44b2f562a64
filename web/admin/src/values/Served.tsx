import type { Flag, Serve, Variant } from '../api/types';
import { classes } from '../ui/classes';
import { Value } from './parts';
import styles from './values.module.css';

interface Share {
  readonly variant: Variant;
  /** Percent. */
  readonly weight: number;
}

/** Returns the served variants with their weights, in the order of the flag's variants. */
export function sharesOf(serve: Serve, variants: readonly Variant[]): Share[] {
  return variants
    .map((variant) => ({
      variant,
      weight: serve.weights ? (serve.weights[variant.id] ?? 0) : serve.variant === variant.id ? 100 : 0,
    }))
    .filter(({ weight }) => weight > 0);
}

/** Shows the variants that a layer serves as a bar and as text. */
export function Served({
  serve,
  variants,
  suffix,
  isOff,
  withBar = true,
}: {
  readonly serve: Serve;
  readonly variants: readonly Variant[];
  /** Text after a single variant, such as `all users`. */
  readonly suffix?: string;
  /** Whether `serve` is the off variant of a flag that is switched off. */
  readonly isOff?: boolean;
  readonly withBar?: boolean;
}) {
  const shares = sharesOf(serve, variants);
  return (
    <span className={styles.servedLine}>
      {withBar ? (
        <span className={classes(styles.served, isOff && styles.servedOff)} aria-hidden>
          {shares.map(({ variant, weight }) => (
            <i key={variant.id} style={{ flex: weight }} />
          ))}
        </span>
      ) : null}
      <span className={styles.servedText}>
        {shares.length === 1 && shares[0] ? (
          <>
            <Value value={shares[0].variant.value} />
            {suffix ? <span className="muted">{suffix}</span> : null}
          </>
        ) : (
          shares.map(({ variant, weight }, index) => (
            <span key={variant.id}>
              {index > 0 ? <span className="muted">· </span> : null}
              <span className={styles.value}>{variantLabel(variant)}</span>{' '}
              <span className="muted">{formatWeight(weight)}</span>
            </span>
          ))
        )}
      </span>
    </span>
  );
}

function variantLabel(variant: Variant): string {
  return variant.name ?? variant.id;
}

export function formatWeight(weight: number): string {
  return weight.toLocaleString('en-GB', { maximumFractionDigits: 3 });
}

/** Shows the variants for users without an override or matching rule. */
export function EffectiveServe({ flag, withBar }: { readonly flag: Flag; readonly withBar?: boolean }) {
  const { enabled, default: serve } = flag.effective;
  const shown = enabled ? serve : { variant: flag.off_variant };
  return (
    <Served
      serve={shown}
      variants={flag.variants}
      suffix={enabled ? 'all users' : ''}
      isOff={!enabled}
      {...(withBar === undefined ? {} : { withBar })}
    />
  );
}
