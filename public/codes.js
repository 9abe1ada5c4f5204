// Copying and downloading backup codes, for browsers with scripts; the page works without this file.
const list = document.querySelector('[data-codes]')
const tools = document.querySelector('[data-codes-tools]')
const status = document.querySelector('[data-codes-status]')
if (list && tools && status) {
  const text = () => `${[...list.querySelectorAll('code')].map((code) => code.textContent).join('\n')}\n`
  const add = (label, act) => {
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'button button-second'
    button.textContent = label
    button.addEventListener('click', act)
    tools.append(button)
  }
  // Browsers offer the clipboard on https and localhost only.
  if (navigator.clipboard) {
    add('Copy all', async () => {
      try {
        await navigator.clipboard.writeText(text())
        status.textContent = 'Copied. Paste them somewhere safe, then copy something else.'
      } catch {
        status.textContent = 'Your browser did not allow that. Mark the codes and copy them by hand.'
      }
    })
  }
  add('Download', () => {
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([text()], { type: 'text/plain' }))
    link.download = 'mlpipes-backup-codes.txt'
    link.click()
    URL.revokeObjectURL(link.href)
    status.textContent = 'Saved to your downloads. Do not leave the file on a shared computer.'
  })
  add('Print', () => window.print())
}
