// A button that copies what stands in a box, for browsers with scripts; the page works without this file.
for (const box of document.querySelectorAll('[data-copy]')) {
  // Browsers offer the clipboard on https and localhost only.
  if (!navigator.clipboard) break
  const button = document.createElement('button')
  const status = document.createElement('span')
  button.type = 'button'
  button.className = 'button button-second copy'
  button.textContent = box.dataset.copy
  status.className = 'hint'
  status.setAttribute('role', 'status')
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText((box.querySelector('pre') ?? box.querySelector('code')).textContent)
      status.textContent = 'Copied.'
    } catch {
      status.textContent = 'Your browser did not allow that. Mark it and copy it by hand.'
    }
  })
  box.append(button, status)
}
