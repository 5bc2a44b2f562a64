import '@fontsource-variable/inter/wght.css';
import './styles/tokens.css';
import './styles/reset.css';
import './styles/base.css';
import { CSPProvider } from '@base-ui/react/csp-provider';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { createRoot } from 'react-dom/client';
import { toApiError } from './api/problem';
import { router } from './router';

const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // The event stream invalidates responses. `staleTime` limits their age while the stream is not connected.
      staleTime: 15_000,
      retry: (count, error) => count < 2 && toApiError(error).isTemporary,
      networkMode: 'always',
    },
    mutations: { networkMode: 'always' },
  },
});

const container = document.getElementById('app');
if (container) {
  createRoot(container).render(
    <CSPProvider disableStyleElements>
      <QueryClientProvider client={queryClient}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </CSPProvider>,
  );
}
