// Applies the stored theme and density before the first paint. Must not be part of a module, which loads later.
try {
  const { theme, density } = JSON.parse(localStorage.getItem('feature-flags:preferences') ?? '{}');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  if (density === 'compact') document.documentElement.dataset.density = density;
} catch {
  // Without readable storage the page follows the system.
}
