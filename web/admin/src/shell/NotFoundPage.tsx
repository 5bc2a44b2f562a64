import { ADDRESSES } from '../addresses';
import { EmptyState } from '../ui/States';
import { PageHead } from './PageHead';
import { PageLink } from './PageLink';

export function NotFoundPage() {
  return (
    <>
      <PageHead title="Page not found" />
      <EmptyState title="There is no such page" actions={<PageLink to={ADDRESSES.home}>Go to the start page</PageLink>}>
        The address {location.pathname} does not exist.
      </EmptyState>
    </>
  );
}
