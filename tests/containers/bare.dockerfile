FROM localhost/voice
USER 0
RUN ["python", "-c", "import glob, os; [os.remove(each) for each in glob.glob('/usr/bin/*') + glob.glob('/usr/local/bin/openrtc*')]"]
USER 1000
