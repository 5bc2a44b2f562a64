import type { ErrorComponentProps } from '@tanstack/react-router';
import { Button } from '../ui/Button';
import { EmptyState } from '../ui/States';

/** A page failed to render or to load. */
export function PageError({ error }: ErrorComponentProps) {
  return (
    <EmptyState title="This page failed" actions={<Button onClick={() => location.reload()}>Reload</Button>}>
      {error instanceof Error ? error.message : String(error)}
    </EmptyState>
  );
}
