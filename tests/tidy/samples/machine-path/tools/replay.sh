cd /home/alice/terrace
