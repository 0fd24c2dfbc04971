"""What `openrtc dev` does: finds agents in files, hosts them in a pool, and starts them anew as files change."""
