import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { ADDRESSES } from '../../addresses';
import { flagQuery } from '../../api/queries';
import { FlagLabel } from '../../values/parts';

/** The type of a flag never changes, so a cached definition never becomes stale. */
const TYPE_STALE_TIME = Number.POSITIVE_INFINITY;

/** Link to a flag. Loads the flag by its name to show its type. */
export function FlagLink({ name }: { readonly name: string }) {
  const { data } = useQuery({ ...flagQuery(name), staleTime: TYPE_STALE_TIME, retry: false });
  return (
    <FlagLabel name={name} type={data?.resource.flag_type}>
      <Link to={ADDRESSES.flag} params={{ flag: name }}>
        {name}
      </Link>
    </FlagLabel>
  );
}
