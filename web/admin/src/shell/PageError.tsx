import type { ErrorComponentProps } from '@tanstack/react-router';
import { Button } from '../ui/Button';
import { EmptyState } from '../ui/States';

/** Shown when a page fails to load or to render. */
export function PageError({ error }: ErrorComponentProps) {
  return (
    <EmptyState title="This page failed" actions={<Button onClick={() => location.reload()}>Reload</Button>}>
      {error instanceof Error ? error.message : String(error)}
    </EmptyState>
  );
}
