// Applies the stored theme and density before the first paint. This is not a module, because modules load later.
try {
  const { theme, density } = JSON.parse(localStorage.getItem('feature-flags:preferences') ?? '{}');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  if (density === 'compact') document.documentElement.dataset.density = density;
} catch {
  // If the storage cannot be read, the page uses the system theme.
}
